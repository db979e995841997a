"""The adder layer: convolution by additions only (Chen et al., CVPR 2020), at its speed."""
