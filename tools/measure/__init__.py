"""What the speeds, errors and studies that are told were measured with."""
