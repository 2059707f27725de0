"""How local models write: token by token in C++ where the architecture allows it, else through transformers."""
