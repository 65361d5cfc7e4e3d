package io.flwrcaesar.android

import android.content.Context
import android.content.pm.PackageManager
import android.os.Build
import android.security.keystore.KeyGenParameterSpec
import android.security.keystore.KeyProperties
import android.security.keystore.StrongBoxUnavailableException
import io.flwrcaesar.fleet.Signer
import io.flwrcaesar.fleet.SoftwareSigner
import java.security.KeyPairGenerator
import java.security.KeyStore
import java.security.PrivateKey
import java.security.Signature
import java.security.spec.ECGenParameterSpec

/**
 * Signs with a P-256 key that is made in the device's safe hardware and never leaves it.
 *
 * The key is in a chip of its own (StrongBox) where the device has one.
 */
class KeystoreSigner(context: Context, private val alias: String = "flwr-caesar") : Signer {
    private val store = KeyStore.getInstance(PROVIDER).apply { load(null) }
    private val hasStrongBox =
        Build.VERSION.SDK_INT >= Build.VERSION_CODES.P &&
            context.packageManager.hasSystemFeature(PackageManager.FEATURE_STRONGBOX_KEYSTORE)

    override val publicKey: ByteArray by lazy {
        if (!store.containsAlias(alias)) make()
        SoftwareSigner.pem("PUBLIC KEY", store.getCertificate(alias).publicKey.encoded)
    }

    override fun sign(data: ByteArray): ByteArray =
        Signature.getInstance("SHA256withECDSA").run {
            initSign(store.getKey(alias, null) as PrivateKey)
            update(data)
            sign()
        }

    private fun make() {
        if (!hasStrongBox || Build.VERSION.SDK_INT < Build.VERSION_CODES.P) return make(inStrongBox = false)
        try {
            make(inStrongBox = true)
        } catch (_: StrongBoxUnavailableException) {
            make(inStrongBox = false) // it is there, and busy or full
        }
    }

    private fun make(inStrongBox: Boolean) {
        val spec =
            KeyGenParameterSpec
                .Builder(alias, KeyProperties.PURPOSE_SIGN)
                .setAlgorithmParameterSpec(ECGenParameterSpec("secp256r1"))
                .setDigests(KeyProperties.DIGEST_SHA256)
        if (inStrongBox && Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) spec.setIsStrongBoxBacked(true)
        val generator = KeyPairGenerator.getInstance(KeyProperties.KEY_ALGORITHM_EC, PROVIDER)
        generator.initialize(spec.build())
        generator.generateKeyPair()
    }

    private companion object {
        const val PROVIDER = "AndroidKeyStore"
    }
}
