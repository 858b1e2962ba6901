import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

/** What Java's own trust manager says of a server's chain: Verify ROOTS CHAIN. */
public class Verify {
    public static void main(String[] arguments) throws Exception {
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null);
        int count = 0;
        for (Certificate root : read(arguments[0])) {
            trusted.setCertificateEntry("root" + count++, root);
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance("PKIX");
        factory.init(trusted);
        X509TrustManager manager = (X509TrustManager) factory.getTrustManagers()[0];
        X509Certificate[] chain = read(arguments[1]);
        String key = chain[0].getPublicKey().getAlgorithm();
        manager.checkServerTrusted(chain, key.equals("RSA") ? "ECDHE_RSA" : "ECDHE_ECDSA");
    }

    private static X509Certificate[] read(String path) throws Exception {
        try (FileInputStream file = new FileInputStream(path)) {
            return CertificateFactory.getInstance("X.509").generateCertificates(file).toArray(new X509Certificate[0]);
        }
    }
}
