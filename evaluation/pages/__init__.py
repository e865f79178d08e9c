"""Tables and plots of README.md and docs/, out of the results.

write tables into the pages  page_tables.rewrite
older than the code?         age.remark
rows as a table              tables.results_table
one layout, every method     ways.ways_table
draw the plots               plots.write
how cost grows                growth_pages.draw_growth
the README's first picture   gallery.main
where judges disagree        disagreements.main
layouts from words           words.main
the registry's icon, banner  registry.main
"""
