package org.pytorch.executorch;

/** Signatures that the client uses; type-checked only. */
public abstract class Tensor {
    public static Tensor fromBlob(float[] data, long[] shape) {
        throw new Error();
    }

    public static Tensor fromBlob(long[] data, long[] shape) {
        throw new Error();
    }

    public long[] shape() {
        throw new Error();
    }

    public abstract DType dtype();

    public float[] getDataAsFloatArray() {
        throw new Error();
    }

    public long[] getDataAsLongArray() {
        throw new Error();
    }
}
