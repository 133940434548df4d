"""The detections: pure functions from records and what is known of them to findings, one idea a module.

Each rule has an id and a version; a change of what it finds is a new version. Their parameters come from the
policy profile, and a rule that the profile leaves out is not run.
"""
