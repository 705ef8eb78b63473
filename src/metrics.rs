//! Dice, HD95 and ASD on label volumes.
