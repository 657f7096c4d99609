"""The near end of the wire: transports for the Responses API, and sessions over them."""
