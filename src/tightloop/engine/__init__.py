"""Makes tokens: engines that speak in conversations, over backends that speak in token ids."""
