"""Which oracle answers for which set."""

from common.base.errors import UserError
from papers.saddle.oracles import LanczosOracle, Oracle, OracleName, TrustRegionOracle
from papers.saddle.polyhedral import BranchAndBoundOracle, EnumerationOracle
from papers.saddle.sets import MOST_FACES, Ball, ConstraintSet, Ellipsoids, Polyhedron
from papers.saddle.shor import make_shor

# beyond this dimension products with H replace its eigendecomposition
LANCZOS_FROM = 500


def make_oracle(name: OracleName, region: ConstraintSet, seed: int) -> Oracle:
    """The oracle by its name; "auto" takes the exact one, or the strongest that the size allows.

    Raises:
        UserError: one that the set does not have.
    """
    if name == "auto":
        name = _natural(region)
    if name == "shor":
        return make_shor(region, seed)
    round_set = isinstance(region, Ball) or (isinstance(region, Ellipsoids) and len(region.forms) == 1)
    if name == "trust_region" and round_set:
        assert isinstance(region, Ball | Ellipsoids)
        return TrustRegionOracle(region)
    if name == "lanczos" and isinstance(region, Ball):
        return LanczosOracle(region, seed)
    if name == "enumeration" and isinstance(region, Polyhedron):
        if region.face_count > MOST_FACES:
            raise UserError(
                f"method.oracle=enumeration on model={region.name}: {region.face_count:.3g} faces are more "
                f"than {MOST_FACES} (valid: branch_and_bound)"
            )
        return EnumerationOracle(region)
    if name == "branch_and_bound" and isinstance(region, Polyhedron):
        return BranchAndBoundOracle(region)
    raise UserError(
        f"method.oracle={name} does not solve over model={region.name} (valid: auto, {_natural(region)})"
    )


def _natural(region: ConstraintSet) -> OracleName:
    if isinstance(region, Ball):
        return "lanczos" if region.dim > LANCZOS_FROM else "trust_region"
    if isinstance(region, Ellipsoids):
        return "trust_region" if len(region.forms) == 1 else "shor"
    assert isinstance(region, Polyhedron)
    if region.face_count <= MOST_FACES:
        return "enumeration"
    return "shor" if region.name == "box" else "branch_and_bound"
