// Connects with a string just as `dbssl url --driver go` prints it, and says `t` if the connection is encrypted.
//
// url ENGINE STRING
package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v4/stdlib"
	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
)

func ask(driver, url, question string) (encrypted bool, err error) {
	database, err := sql.Open(driver, url)
	if err == nil {
		err = database.QueryRow(question).Scan(&encrypted)
	}
	return encrypted, err
}

func cipher(url, status string) (bool, error) {
	return ask("mysql", url, "select variable_value <> '' from "+status+" where variable_name = 'Ssl_cipher'")
}

// The server does not tell; but this one refuses plaintext.
func mongodb(url string) (bool, error) {
	options := options.Client().ApplyURI(url).SetServerSelectionTimeout(10 * time.Second)
	client, err := mongo.Connect(context.Background(), options)
	if err != nil {
		return false, err
	}
	var answer struct{ Ok float64 }
	err = client.Database("admin").RunCommand(context.Background(), bson.M{"ping": 1}).Decode(&answer)
	return answer.Ok == 1, err
}

func main() {
	encrypted, err := false, fmt.Errorf("no such engine: %s", os.Args[1])
	switch url := os.Args[2]; os.Args[1] {
	case "postgres":
		encrypted, err = ask("pgx", url, "select ssl from pg_stat_ssl where pid = pg_backend_pid()")
	case "mysql":
		encrypted, err = cipher(url, "performance_schema.session_status")
	case "mariadb":
		encrypted, err = cipher(url, "information_schema.session_status")
	case "mongodb":
		encrypted, err = mongodb(url)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(map[bool]string{true: "t", false: "f"}[encrypted])
}
