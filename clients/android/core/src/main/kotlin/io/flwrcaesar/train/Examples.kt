package io.flwrcaesar.train

/**
 * Labelled examples of a classification.
 *
 * @property features `size` rows of [width] numbers, one after another.
 * @property labels from 0 to [classes] - 1.
 */
class Examples(val features: FloatArray, val labels: IntArray, val width: Int, val classes: Int) {
    init {
        require(features.size == labels.size * width) { "features and labels are of different examples" }
        require(labels.all { it in 0 until classes }) { "a label is not among the $classes classes" }
    }

    /** How many examples there are. */
    val size: Int get() = labels.size

    /** How many examples have each label. */
    fun counts(): List<Long> = LongArray(classes).also { counts -> labels.forEach { counts[it]++ } }.toList()
}
