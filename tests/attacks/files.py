"""F: files, the numbers with probes."""

from tests.attacks.attack import Attack, Probe
from tests.attacks.inside import files as inside

ATTACKS = (
    Attack(
        "F1",
        "write outside the workspace",
        (
            Probe(
                "in a readable directory",
                inside.write_outside,
                bubblewrap="EROFS",
                landlock="EACCES",
                trace=lambda ground: ground.outside / "F1",
            ),
        ),
    ),
)
