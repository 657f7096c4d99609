"""The interactive agent: ``tightloop`` without a verb."""
