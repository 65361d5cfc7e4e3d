package org.pytorch.executorch;

/** Names that the client uses; type-checked only. */
public enum DType {
    FLOAT,
    INT64
}
