"""Whether an answer solves its task, found out in a process that may do nothing: `verify` asks, `process` answers."""
