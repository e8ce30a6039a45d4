"""Pure statistics: arrays in, numbers out, with no clock and no input or output."""
