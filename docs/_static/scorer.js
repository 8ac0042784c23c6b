// The order of search results, inserted into Sphinx' search: guides before results, the API before notes for developers.
var Scorer = {
  guides: new Set([
    "photograph", "matrix", "video", "lightning", "experiments", "files", "masks", "damage", "scientific", "arrays",
    "own_signal", "operators", "metrics", "extending", "logging", "checkpoints", "resume", "status", "report", "gpu",
    "cluster", "tuning", "alpha", "stopping", "command_line", "configs", "app", "notebooks", "napari", "deepinv", "ray",
    "kubernetes",
  ]),
  score: (result) => {
    const [page, , anchor, , score] = result;
    if (["decisions", "changelog", "contributing"].includes(page)) return 0.2 * score;
    if (page.startsWith("api/")) return 0.5 * score;
    if (Scorer.guides.has(page)) return (anchor ? 1.3 : 1.4) * score;
    return score;
  },
  // Those of Sphinx:
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
