"""Speed and memory, against baselines measured in the same run.

stage.py bench                    bench.main
a picture                         bench.bench_picture
layered rendering                 bench.bench_layered
attention guidance                guidance.bench_guidance
... on one network                guidance_network.main
... of joint attention            joint.bench_joint
... on one of its networks        joint_network.main
soft guidance, local fuser        soft.bench_soft
... on one network                soft_network.main
how cost grows                    growth.bench_growth
... on one network                growth_network.main
... what methods evaluate         growth_runs.Runs
operations of a job               operations.count_operations
... and its peak memory           live_memory.count_row
TCIG's first stage                tcig.bench_tcig
... one draft                     draft_speed.main
... the loop it is compared with  plain_draft.plain_draft
"""
