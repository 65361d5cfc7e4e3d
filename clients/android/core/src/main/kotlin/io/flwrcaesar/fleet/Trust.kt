package io.flwrcaesar.fleet

import java.io.ByteArrayInputStream
import java.security.KeyStore
import java.security.cert.CertificateFactory
import javax.net.ssl.SSLContext
import javax.net.ssl.SSLSocketFactory
import javax.net.ssl.TrustManagerFactory

/** Trust in a fleet's own authority. */
object Trust {
    /** Returns a maker of TLS sockets that trusts the certificates in a PEM, and no others. */
    fun ofPem(pem: ByteArray): SSLSocketFactory {
        val certificates = CertificateFactory.getInstance("X.509").generateCertificates(ByteArrayInputStream(pem))
        val store = KeyStore.getInstance(KeyStore.getDefaultType())
        store.load(null, null)
        certificates.forEachIndexed { i, certificate -> store.setCertificateEntry("authority-$i", certificate) }
        val trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm())
        trust.init(store)
        val context = SSLContext.getInstance("TLS")
        context.init(null, trust.trustManagers, null)
        return context.socketFactory
    }
}
