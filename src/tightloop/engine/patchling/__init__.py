"""The bundled patch model's prompt layout, test reports and candidate search."""
