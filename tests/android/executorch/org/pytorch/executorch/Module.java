package org.pytorch.executorch;

/** Signatures of ExecuTorch's library for Android that the client uses; type-checked only. */
public class Module implements java.io.Closeable {
    public static final int LOAD_MODE_MMAP = 1;

    public static Module load(String modelPath, int loadMode, int numThreads) {
        throw new Error();
    }

    public EValue[] execute(String methodName, EValue... inputs) {
        throw new Error();
    }

    @Override
    public void close() {}
}
