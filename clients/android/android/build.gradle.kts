plugins {
    id("com.android.library")
    kotlin("android")
}

android {
    namespace = "io.flwrcaesar.android"
    compileSdk = 36
    defaultConfig { minSdk = 26 }
}

dependencies {
    api(project(":core"))
    // Of the version that made the programs: `versions` in their manifest.
    implementation("org.pytorch:executorch-android:1.5.1")
}
