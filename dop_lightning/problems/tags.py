"""Names of scores: tags of curves, columns of tables, and names that user-defined metrics must not use."""

CURVES = ("psnr", "ssim", "relative_error", "loss", "corruption_density")
"""Tags that are logged during a run, the same for every problem, so that curves overlay."""

FINAL = (
    "relative_error_corruption",
    "true_density",
    "support_precision",
    "support_recall",
    "rank",
    "input_psnr",
)
"""Tags of scores that are computed only at the end."""

RESERVED = frozenset(
    {
        *CURVES,
        *FINAL,
        # scores of single methods and callbacks
        *("psnr_average", "best_psnr", "best_iteration"),
        # columns of results.csv, and keys of result.json
        *("run", "problem", "attributes", "seed", "tau", "alpha", "status", "iterations", "seconds", "machine"),
        *("higher_is_better", "report", "files", "checksum"),
        # names with a meaning in Lightning
        *("epoch", "step", "global_step"),
    }
)
"""Tags that user-defined metrics must not use."""
