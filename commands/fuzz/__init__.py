"""`python stage.py fuzz`: seeded random graphs, interrupts and repeated runs against a real server.

the command and its options          fuzz.main
a random graph                       graphs.RandomGraph
values of a widget                   values.value_of
texts that mean something            texts.TEXTS
real things for links                sources.SOURCES
the server that is fuzzed            session.Session
what a result means                  outcomes.Outcome
batches of prompts                   batches.fuzz
random interrupts                    interrupts.interrupt
repeated runs                        soak.soak
memory and handles                   process.Usage
what is printed and written          report.Report
the node that looks at any value     probe.Probe
"""
