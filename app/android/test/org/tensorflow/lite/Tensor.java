package org.tensorflow.lite;

/** Stand-in for LiteRT's class of this name on a machine without Android: what the port calls, and no more. */
public interface Tensor {
    int[] shape();
}
