"""Certificates of memory: proofs that no admissible sequence of observations makes an agent forget; see README.md.

certificate = certify(load(run).policy, env)
certificate.proved  # the number of cues that are kept for ever
"""

from bistable_rl.certify.certificate import Certificate, Cue, certify

__all__ = ["Certificate", "Cue", "certify"]
