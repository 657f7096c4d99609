"""llama.cpp inside this process, token by token, through its C interface."""
