package io.flwrcaesar.fleet

import java.security.KeyFactory
import java.security.KeyPair
import java.security.KeyPairGenerator
import java.security.PrivateKey
import java.security.PublicKey
import java.security.Signature
import java.security.spec.ECGenParameterSpec
import java.security.spec.PKCS8EncodedKeySpec
import java.security.spec.X509EncodedKeySpec
import java.util.Base64

/** A device's key on a NIST curve, which may be in hardware and never leave it. */
interface Signer {
    /** The public key as PEM. */
    val publicKey: ByteArray

    /** Returns the DER ECDSA signature with SHA-256 of bytes. */
    fun sign(data: ByteArray): ByteArray
}

/** A key on P-256 that the process holds, for devices without a safe place and for tests. */
class SoftwareSigner private constructor(private val privateKey: PrivateKey, public: PublicKey) : Signer {
    override val publicKey: ByteArray = pem("PUBLIC KEY", public.encoded)

    /** The pair, to be kept by its owner: the private and the public key as DER. */
    val encoded: Pair<ByteArray, ByteArray> = privateKey.encoded to public.encoded

    override fun sign(data: ByteArray): ByteArray =
        Signature.getInstance("SHA256withECDSA").run {
            initSign(privateKey)
            update(data)
            sign()
        }

    companion object {
        /** Makes a new key. */
        fun generate(): SoftwareSigner {
            val generator = KeyPairGenerator.getInstance("EC")
            generator.initialize(ECGenParameterSpec("secp256r1"))
            val pair: KeyPair = generator.generateKeyPair()
            return SoftwareSigner(pair.private, pair.public)
        }

        /** Returns the key whose [encoded] pair was kept. */
        fun of(encoded: Pair<ByteArray, ByteArray>): SoftwareSigner {
            val factory = KeyFactory.getInstance("EC")
            return SoftwareSigner(
                factory.generatePrivate(PKCS8EncodedKeySpec(encoded.first)),
                factory.generatePublic(X509EncodedKeySpec(encoded.second)),
            )
        }

        /** Returns DER as PEM: lines of 64 characters, each ended by a line feed, the last one too. */
        fun pem(label: String, der: ByteArray): ByteArray {
            val body = Base64.getMimeEncoder(64, "\n".toByteArray()).encodeToString(der)
            return "-----BEGIN $label-----\n$body\n-----END $label-----\n".toByteArray()
        }
    }
}
