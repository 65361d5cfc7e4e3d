import org.jetbrains.kotlin.gradle.dsl.JvmTarget

plugins {
    kotlin("jvm")
}

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

kotlin {
    compilerOptions {
        jvmTarget = JvmTarget.JVM_1_8
        // The classes of Java 8 are those that Android has from API 26 on.
        freeCompilerArgs.add("-Xjdk-release=1.8")
        allWarningsAsErrors = true
    }
}
