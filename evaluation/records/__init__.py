"""What a run keeps of every picture, in a file that grows by a line as each is painted.

the scores of one picture          lines.PictureLine
the file of a run, and resuming     pictures.PictureRecords
where its numbers come from        provenance.provenance
what git says of this checkout     checkout.commit
"""
