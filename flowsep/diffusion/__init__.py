"""Denoising diffusion, the baseline of FlowSep's paper. Names only here, so that the command line can check them."""

SOLVER_NAMES = ("ddim", "dpmpp2m", "unipc", "euler_ancestral")
PREDICTIONS = ("eps", "v", "x0")  # what the network's output can mean: the noise, the velocity of the angle, the target
