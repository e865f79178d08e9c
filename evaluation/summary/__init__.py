"""What the pictures of a run say together: pure functions of their lines.

rows of results                      rows.summary_rows
every score of a set, for any draw   set_scores.SetScores
intervals                            bootstrap.intervals
one method minus another             compared.Compared
numbers that are no scores           means.mean_of
met, missed, not told apart          verdicts.verdict
KID                                  kernel_distance.kid
"""
