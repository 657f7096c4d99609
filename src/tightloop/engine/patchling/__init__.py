"""The bundled model's prompt layout and way of decoding."""
