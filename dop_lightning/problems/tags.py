"""Names of scores: the tags of curves, columns of tables, and names that a metric of the user must not take."""

CURVES = ("psnr", "ssim", "relative_error", "loss", "corruption_density")
"""Tags that are followed during a run, the same for every problem, so that curves overlay."""

FINAL = (
    "relative_error_corruption",
    "true_density",
    "support_precision",
    "support_recall",
    "rank",
    "input_psnr",
)
"""Tags of scores that are computed at the end only."""

RESERVED = frozenset(
    {
        *CURVES,
        *FINAL,
        # scores of single methods and callbacks
        *("psnr_average", "best_psnr", "best_iteration"),
        # columns of results.csv, and keys of result.json
        *("run", "problem", "attributes", "seed", "tau", "alpha", "status", "iterations", "seconds", "machine"),
        *("higher_is_better", "report", "files", "checksum"),
        # names that Lightning gives a meaning
        *("epoch", "step", "global_step"),
    }
)
"""Tags that metrics of the user must not have."""
