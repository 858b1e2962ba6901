import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;

/** Connects with a JDBC URL as it is, asks one question and prints the answer: java -cp DRIVER.jar Jdbc.java URL SQL. */
public class Jdbc {
    public static void main(String[] arguments) throws Exception {
        try (Connection connection = DriverManager.getConnection(arguments[0]);
                ResultSet result = connection.createStatement().executeQuery(arguments[1])) {
            result.next();
            System.out.println(result.getString(1));
        }
    }
}
