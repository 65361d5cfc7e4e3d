plugins {
    id("com.android.application")
    kotlin("android")
}

android {
    namespace = "io.flwrcaesar.sample"
    compileSdk = 36
    defaultConfig {
        applicationId = "io.flwrcaesar.sample"
        minSdk = 26
        targetSdk = 36
        versionCode = 1
        versionName = "0.1"
    }
}

dependencies {
    implementation(project(":android"))
}
