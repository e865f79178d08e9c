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
operations of a job               operations.count_operations
TCIG's first stage                tcig.bench_tcig
... one draft                     draft_speed.main
... the loop it is compared with  plain_draft.plain_draft
"""
