"""The machine: device, precision, processes. torch is imported from here up."""
