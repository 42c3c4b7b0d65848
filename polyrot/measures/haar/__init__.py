"""What the claims of section 5 measure: the rotations of a cohort against Haar measure."""
