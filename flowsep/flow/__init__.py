"""The rectified flow: path, solvers, time grids, guidance. Names only here, so that the command line can check them."""

ADAPTIVE = ("dopri5", "bosh3", "adaptive_heun")  # choose their own steps, by rtol and atol
SOLVER_NAMES = ("euler", "midpoint", "heun", "rk4", "ab2", *ADAPTIVE)
