"""A server asked once: its answer's JSON, or the error that its refusal is (`refused`)."""

from typing import Any

from spiritsafe.models.http import Client, NoAnswer
from spiritsafe.models.keys import variable
from spiritsafe.models.refused import Busy, check, reason_of
from spiritsafe.models.reply import whole


class Server(Client):
    """A bounded client that raises what refusals mean."""

    def ask(
        self, method: str, where: str, body: dict[str, Any] | None, timeout_s: float, *, wants_json: bool = True
    ) -> Any:
        """The answer's JSON, None if it has none and none is wanted.

        Raises `Busy` if it may go well later, `Refused` if this request never will, `EndpointError` if none will.
        """
        try:
            answer = self.send(method, where, body, timeout_s)
        except NoAnswer as no:
            raise Busy(str(self.url), str(no), "is the server running?", status=None) from None
        key = "refused the key" if self.key else "wants a key"
        hint = f"set {variable(self.url)} to a key of this server"
        said = self.shown(whole(reason_of(answer)))
        check(where, answer, said, key=key, hint=hint, wants_json=wants_json)
        return answer.data
