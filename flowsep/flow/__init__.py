"""The rectified flow: path, solvers, time grids, guidance. Names only here, so that the command line can check them."""

SOLVER_NAMES = ("euler", "midpoint", "heun", "rk4", "dopri5")
