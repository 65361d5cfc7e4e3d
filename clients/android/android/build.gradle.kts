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
}
