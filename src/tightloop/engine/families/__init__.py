"""Model families: prompt layout, way of decoding and tool-call syntax."""
