package compose

// Judge is judge.
func Judge(key string) (Row, bool) { return judge(key) }
