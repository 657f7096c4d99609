"""``tightloop test`` and ``tightloop warm``: a near end that costs next to nothing, and what it talks to."""
