package org.pytorch.executorch;

/** Signatures that the client uses; type-checked only. */
public class EValue {
    public static EValue from(Tensor tensor) {
        throw new Error();
    }

    public Tensor toTensor() {
        throw new Error();
    }
}
