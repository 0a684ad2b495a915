"""The engines behind every loss: arrays in, arrays out, nothing about any one loss."""
