"""Chat templates write what transformers makes them write, always the same, and come to an end."""

import time

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from spiritsafe.errors import ModelError
from spiritsafe.models.template import ChatTemplate, TooMuch
from tests.tiny import TEMPLATE

TURNS = [
    {"role": "system", "content": "Be  brief. "},
    {"role": "user", "content": " Wie viele Äpfel? <b>\n"},
    {"role": "assistant", "content": "<think>\nso\n</think>\n\nTwo"},
    {"role": "user", "content": "And pears?"},
]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRIMMING = """{{ bos_token }}{%- set ns = namespace(num=0) %}
{%- for m in messages[::-1] if m.role != 'system' %}
    {%- set ns.num = ns.num + 1 %}
    {{- '[' ~ loop.index ~ '/' ~ ns.num ~ ('' if loop.last else ',') ~ ']' }}{{ m.content | trim }}
    {%- if m.role == 'assistant' %}{% generation %}{{ m.content.split('</think>')[-1].lstrip('\n') }}{% endgeneration %}
    {%- else %}{% continue %}{% endif %}
{% endfor %}
{{- messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | list | tojson }}
{%- macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice('%03d' % (7 * 6)) }}{{ tools is none }}"""


@pytest.mark.parametrize("source", [CHATML, TRIMMING, TEMPLATE])
@pytest.mark.parametrize("reply", [True, False])
def test_a_template_writes_what_transformers_makes_it_write(source: str, reply: bool) -> None:
    [[true], _] = render_jinja_template(
        [TURNS], chat_template=source, add_generation_prompt=reply, bos_token="<s>", tools=None
    )
    assert ChatTemplate(source, "x", {"bos_token": "<s>"})(TURNS, reply=reply) == true


def test_its_clock_stands_still_and_is_set_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    source = "{{ strftime_now('%d %b %Y %H:%M') }}"
    assert ChatTemplate(source, "x", {})(TURNS, reply=True) == "01 Jan 2026 00:00"
    monkeypatch.setenv("SPIRITSAFE_DATE", "2024-07-26")
    assert ChatTemplate(source, "x", {})(TURNS, reply=True) == "26 Jul 2024 00:00"
    monkeypatch.setenv("SPIRITSAFE_DATE", "yesterday")
    with pytest.raises(ModelError, match="SPIRITSAFE_DATE: is no date: 'yesterday'; write it as 2026-01-31"):
        ChatTemplate(source, "x", {})


LITERAL = "".join(f"{{% for a{i} in [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] %}}" for i in range(9)) + "x" + "{% endfor %}" * 9


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% for a in range(10000000000) %}x{% endfor %}",
        LITERAL,
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * [1] }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}",
        "{% set n = namespace(x='abcd') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% set n = namespace(x='abcd') %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 'x' | center(999999999) }}",
        "{{ 'x'.ljust(999999999) }}",
        "{% set x = 'ab' * 1000000 %}{{ x | replace('a', x) }}",
        "{% set x = 'ab' * 1000000 %}{{ x.join(x) }}",
        "{% for i in range(100000) %}{% set y = ('a' * 8000000) | upper %}{% endfor %}",
    ],
)
def test_a_template_without_end_is_ended(source: str) -> None:
    started = time.process_time()
    with pytest.raises(TooMuch, match="does not end, or writes without end"):
        ChatTemplate(source, "x", {})(TURNS, reply=True)
    assert time.process_time() - started < 20


@pytest.mark.parametrize("source", ["{% if %}", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "{% for x in y %}"])
def test_what_is_no_template_is_one_line(source: str) -> None:
    with pytest.raises(ModelError, match="x: has a broken chat template") as caught:
        ChatTemplate(source, "x", {})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["{{ ''.__class__.__mro__ }}", "{% include 'x' %}", "{{ lipsum(3) }}"])
def test_a_template_reaches_nothing_but_its_messages(source: str) -> None:
    with pytest.raises(Exception, match=r"unsafe|no loader|lipsum"):
        ChatTemplate(source, "x", {})(TURNS, reply=True)
